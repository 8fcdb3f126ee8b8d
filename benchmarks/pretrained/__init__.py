"""The whole chain on two pretrained networks that hessrank was not made for."""
